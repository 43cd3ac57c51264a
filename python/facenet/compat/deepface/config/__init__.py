"""deepface.config: numbers that DeepFace measured."""
