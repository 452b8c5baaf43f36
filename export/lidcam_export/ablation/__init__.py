"""The ablation of the talk on exported artifacts: CAM, +TAP, +NWC, +PaS, +CRF."""
