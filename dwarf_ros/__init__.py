"""Scene flow for robots with a stereo camera: disparity, optical flow and 3D motion, live in ROS 2 or offline."""

from pkgutil import extend_path

from dwarf_ros.motion.refined import load_estimator as load_estimator

# The generated messages (dwarf_ros.msg) are installed beside, not inside, a checkout that is on sys.path.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
