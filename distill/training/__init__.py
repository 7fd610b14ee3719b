"""The parts of the training loop: learners, optimizers, mean weights and checkpoints."""
