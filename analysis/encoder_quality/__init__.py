"""An encoder's quality in numbers, and what each source of its training pairs adds."""
