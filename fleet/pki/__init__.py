"""The private certificate authorities, one a purpose: roots, what they signed, and the register of all of it."""
