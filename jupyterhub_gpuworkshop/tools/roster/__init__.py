"""`gpuworkshop roster`: who attends, their login codes, and the cards that say them."""
