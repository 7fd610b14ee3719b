"""Students: one family of nets per file, one function per net, as `resnet8x4(num_classes)`."""
