"""The camera's own motion, what moves independently, and estimates improved by both: numpy and OpenCV only."""
