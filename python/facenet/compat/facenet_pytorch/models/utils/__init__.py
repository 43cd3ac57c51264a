"""facenet_pytorch.models.utils."""
