"""Pictures of adapters, training runs and images: PIL in, PIL out. The command line, the demo's page and the nodes share them.

Nothing here knows a host, a model or a file format. Matplotlib is imported only when a chart is drawn.
"""

from .charts import cumulative_curve, importance_map, training_curves
from .images import gif, gif_bytes, image_strip, save_image, to_image, to_images
from .overlays import coefficient_map

__all__ = [
    "coefficient_map",
    "cumulative_curve",
    "gif",
    "gif_bytes",
    "image_strip",
    "importance_map",
    "save_image",
    "to_image",
    "to_images",
    "training_curves",
]
