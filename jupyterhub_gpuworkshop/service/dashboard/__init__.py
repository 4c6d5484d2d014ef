"""The pages that people look at: what stands on them, and what keeps them current."""
