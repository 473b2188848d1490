"""What each kind of effect does. Every class here registers its kinds with `handlers()`."""
