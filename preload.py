"""AUTOMATIC1111 and the Forges read this before their own options: where adapters lie."""


def preload(parser):
    parser.add_argument("--sparsedict-dir", type=str, default=None, help="folder of SparseDict adapters; models/SparseDict without it")
