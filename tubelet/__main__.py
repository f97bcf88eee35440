"""`python -m tubelet`, and so `torchrun -m tubelet`, is the command `tubelet`."""

from tubelet.cli import main

main()
