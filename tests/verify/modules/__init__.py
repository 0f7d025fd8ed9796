"""testinfra modules that testinfra does not have. Each reads real tools' output by itself, and changes nothing."""
