"""A Ray cluster on this machine: `python ray_nodes.py CPUS ...` starts a node with each number of CPUs.

Prints the address; the line `kill` on standard input kills the last node; the cluster ends with standard input.
"""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster(initialize_head=False)
    # Ray's own store of objects is not used; by default it takes a third of the memory.
    nodes = [
        cluster.add_node(num_cpus=int(count), num_gpus=0, object_store_memory=80 * 2**20, include_dashboard=False)
        for count in sys.argv[1:]
    ]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line == "kill\n":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
