"""The ROS 2 node: with live/ the only package that imports rclpy and messages."""
