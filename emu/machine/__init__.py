"""The x86 machine: engine, memory, processor, devices, virtual time."""
