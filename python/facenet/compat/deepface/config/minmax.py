"""deepface.config.minmax: the least and the largest number of an embedding, for minmax_normalize."""

from __future__ import annotations

minmax_values: dict[str, tuple[float, float]] = {
    "Facenet": (-3.541942596435547, 3.247769594192505),
    "Facenet512": (-4.388302803039551, 3.643190622329712),
}


def get_minmax_values(model_name: str) -> tuple[float, float]:
    return minmax_values.get(model_name, (0, 0))
