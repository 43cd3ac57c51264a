"""deepface.modules"""
