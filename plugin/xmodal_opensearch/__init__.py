"""The OpenSearch half of xmodal: codes as bit vectors in a cluster, behind the Index contract."""
