"""Training of Inception-ResNet-v1 in PyTorch: data, losses, evaluation, the loop. The command is tools/train.py."""
