"""The network `dwarf_lite_v2`: stereo per frame and optical flow per pair, on features distilled from a strong teacher."""
