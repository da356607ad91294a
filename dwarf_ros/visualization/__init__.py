"""Pictures of estimates, drawn with NumPy and OpenCV."""
