"""One family of nets a file; each public function builds one net: `resnet8x4(num_classes)`."""
