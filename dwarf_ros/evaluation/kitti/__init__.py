"""The KITTI 2015 scene-flow benchmark: rules, results folder, report and submission."""
