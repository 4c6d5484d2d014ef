"""`gpuworkshop remove-attendees`: what a workshop has made of people, and no more.

`planning` reads and changes nothing; `carrying_out` does what was listed, an attendee
after the other, and asks again what it stands on right before; `homes` judges and
removes what is on this machine's disks.
"""
