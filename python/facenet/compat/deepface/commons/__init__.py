"""deepface.commons"""
