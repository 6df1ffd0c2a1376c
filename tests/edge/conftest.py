"""Two busy threads of torch on two busy cores are slower than one."""

import torch

torch.set_num_threads(1)
