"""Material: fetched, checked, unpacked beside, and swapped in."""
