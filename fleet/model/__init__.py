"""The typed inventory: what there shall be. Frozen pydantic models; an unknown key is an error (DESIGN I1)."""
