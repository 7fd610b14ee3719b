"""What the loop needs: learners, optimizers, averages, checkpoints."""
