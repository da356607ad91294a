"""Stereo recordings on disk: folders of images and rosbag2 bags, with their calibrations, poses and ground truth."""
