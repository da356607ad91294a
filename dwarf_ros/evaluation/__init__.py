"""How far an estimate is from the truth: error measures, and the KITTI benchmark's rules."""
