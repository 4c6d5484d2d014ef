"""What `gpuworkshop doctor --prove-caps` proves, and that it leaves nothing behind."""
