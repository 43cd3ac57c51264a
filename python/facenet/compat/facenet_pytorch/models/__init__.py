"""facenet_pytorch.models."""
