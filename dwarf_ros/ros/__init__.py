"""The live side: the only room that knows ROS 2."""
