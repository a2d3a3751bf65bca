"""What the process tells the C library and Python's collector once, before it serves."""

import subprocess
import sys

_HEAPS = """
import ctypes, os, sys, threading
from edge import machine
if sys.argv[1] == "one":
    machine.share_one_heap()
gate = threading.Barrier(5)
def work():
    libc.malloc.restype = ctypes.c_void_p
    kept = [libc.malloc(10_000) for _ in range(100)]  # the C library's own, past Python's small objects
    gate.wait()
libc = ctypes.CDLL("libc.so.6")
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
gate.wait()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""
_COLLECTOR = """
import gc
gc.disable()
from edge import machine
machine.set_aside()
print(gc.isenabled(), gc.get_freeze_count() > 1_000)
"""


def said(script, *words):
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return ran.stdout


def test_all_threads_share_one_heap():
    assert said(_HEAPS, "many").count("<heap nr=") > 1
    assert said(_HEAPS, "one").count("<heap nr=") == 1


def test_what_is_loaded_is_set_aside_and_what_comes_later_is_collected():
    assert said(_COLLECTOR).split() == ["True", "True"]
