"""What is run where there is an NVIDIA GPU: tests, sanitizers, kernels and training steps.

    make gpu-test                 python -m trine.bench.gpu.tests
    make gpu-sanitize             python -m trine.bench.gpu.sanitize
    make gpu-bench-kernels        python -m trine.bench.gpu.kernels
    make gpu-bench-steps          python -m trine.bench.gpu.steps

Each ends by itself within eight minutes and writes a JSON file and a page of tables to
`bench/results/` after every row, so that a run that is killed leaves what it had. `--dry-run` runs
the same code on the CPU, through the emulator, on tiny sizes: it proves that the commands work, its
times mean nothing, and its files say so in their names and on top.
"""
