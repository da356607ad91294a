"""rosbag2 files without ROS: written from a recording, looked into, and read back as one."""
