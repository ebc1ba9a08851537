"""Generated protocol buffer modules of one .proto package."""
