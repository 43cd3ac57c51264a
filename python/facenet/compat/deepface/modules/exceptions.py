"""deepface.modules.exceptions: DeepFace's names, each a ValueError there and here."""

from __future__ import annotations

from facenet._errors import FacenetNotFoundError, FacenetValueError


class _DeepFaceError(FacenetValueError):
    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.code)


class ImgNotFound(_DeepFaceError):
    """There is no such picture, or it cannot be read."""


class PathNotFound(_DeepFaceError):
    """There is no such folder."""


class FaceNotDetected(_DeepFaceError):
    """No face was found in the picture."""


class SpoofDetected(_DeepFaceError):
    """Never raised here: anti_spoofing is refused."""


class EmptyDatasource(_DeepFaceError):
    """There is no picture to search in."""


class DimensionMismatchError(_DeepFaceError):
    """An embedding has another number of components than the model's."""


class InvalidEmbeddingsShapeError(_DeepFaceError):
    """Embeddings are neither [dim] nor [n, dim]."""


class DataTypeError(_DeepFaceError):
    """What was given is of no type that holds a picture."""


class UnimplementedError(_DeepFaceError):
    """A model, a detector or an option that is not there."""


class DuplicateEntryError(_DeepFaceError):
    """Never raised here: it is about databases."""


class WeightsNotFound(FacenetNotFoundError, FacenetValueError):
    """A model has no weight file. DeepFace raises a ValueError where it cannot fetch one."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.code)
