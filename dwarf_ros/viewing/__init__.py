"""Looking at results: pictures, videos, and the scene of the viewer in the browser."""
