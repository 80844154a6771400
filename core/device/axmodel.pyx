"""Models loaded on the card, and the bindings of their inputs and outputs."""

import os
import weakref

cimport cython

from .buffer cimport DeviceBuffer
from .runtime cimport Card, axclError, axclrtEngineDataType, axclrtEngineIO, axclrtEngineIODims

from ..errors import PackageError, RuntimeCallError, RuntimeUnavailable
from .runtime import describe_code
from .shape_groups import TensorInfo

MAX_DIMS = 32  # room in the runtime's struct


cdef _nonsense(str call, str detail):
    """The error of a function that has no code for one, and told what cannot be."""
    code = 0x8030070A  # the engine: an unexpected response
    return RuntimeCallError(call, code, describe_code(code), detail)


@cython.no_gc_clear
cdef class LoadedModel:
    """One axmodel on the card: a layer or a head. `inputs` and `outputs`: TensorInfo each, in the card's order."""

    def __init__(self, card: Card, path: str | os.PathLike):
        """Loads from a file (loading from memory hangs on some runtimes). RuntimeCallError names the file."""
        cdef axclError code
        self.card = card
        self.path = os.fspath(path)
        self.bindings = weakref.WeakSet()
        card.require_open()
        name = os.fsencode(path)
        cdef const char *c_name = name
        with nogil:
            code = card.api.axclrtEngineLoadFromFile(c_name, &self.model)
        card.check(f"axclrtEngineLoadFromFile({os.path.basename(self.path)})", code)
        card.models.append(self)
        with nogil:
            code = card.api.axclrtEngineCreateContext(self.model, &self.context)
        card.check("axclrtEngineCreateContext", code)
        with nogil:
            code = card.api.axclrtEngineGetIOInfo(self.model, &self.info)
        card.check("axclrtEngineGetIOInfo", code)
        self._read_groups()

    def _read_groups(self):
        cdef axclError code
        cdef int32_t count = 0
        with nogil:
            code = self.card.api.axclrtEngineGetShapeGroupsCount(self.info, &count)
        self.card.check("axclrtEngineGetShapeGroupsCount", code)
        self.num_groups = count
        self.inputs = [self._tensor(i, True) for i in range(self.card.api.axclrtEngineGetNumInputs(self.info))]
        self.outputs = [self._tensor(i, False) for i in range(self.card.api.axclrtEngineGetNumOutputs(self.info))]
        if not (self.inputs and self.outputs and count > 0):
            raise _nonsense("axclrtEngineGetNum", f"{len(self.inputs)} inputs, {len(self.outputs)} outputs and {count}"
                            f" groups in {os.path.basename(self.path)}")

    def _tensor(self, uint32_t index, bint is_input):
        cdef axclrtEngineDataType dtype = <axclrtEngineDataType>0
        cdef const char *name
        cdef axclError code
        if is_input:
            name = self.card.api.axclrtEngineGetInputNameByIndex(self.info, index)
            code = self.card.api.axclrtEngineGetInputDataType(self.info, index, &dtype)
        else:
            name = self.card.api.axclrtEngineGetOutputNameByIndex(self.info, index)
            code = self.card.api.axclrtEngineGetOutputDataType(self.info, index, &dtype)
        self.card.check("axclrtEngineGetDataType", code)
        if name == NULL:
            raise _nonsense("axclrtEngineGetNameByIndex", f"no name for tensor {index}")
        shapes, sizes = [], []
        for group in range(self.num_groups):
            shape, size = self._shape(group, index, is_input)
            shapes.append(shape)
            sizes.append(size)
        return TensorInfo((<bytes>name).decode(), <int>dtype, tuple(shapes), tuple(sizes))

    def _shape(self, uint32_t group, uint32_t index, bint is_input):
        cdef axclrtEngineIODims dims
        cdef axclError code
        cdef uint64_t size
        dims.dimCount = 0
        if is_input:
            code = self.card.api.axclrtEngineGetInputDims(self.info, group, index, &dims)
            size = self.card.api.axclrtEngineGetInputSizeByIndex(self.info, group, index)
        else:
            code = self.card.api.axclrtEngineGetOutputDims(self.info, group, index, &dims)
            size = self.card.api.axclrtEngineGetOutputSizeByIndex(self.info, group, index)
        self.card.check("axclrtEngineGetDims", code)
        if not 0 <= dims.dimCount <= MAX_DIMS:
            raise PackageError(
                f"{self.path}: the runtime gives a tensor of {dims.dimCount} dimensions; is this an AXCL 3 runtime?")
        shape = tuple([dims.dims[i] for i in range(dims.dimCount)])
        if size == 0 and shape and 0 not in shape:
            raise _nonsense("axclrtEngineGetSizeByIndex", f"no bytes for a tensor of {shape}")
        return shape, size

    def close(self) -> None:
        """Frees the bindings and unloads. Closing twice is harmless."""
        cdef axclError code
        cdef uint64_t model = self.model
        if model == 0:
            return
        self.model = 0
        for binding in list(self.bindings):
            binding.close()
        if self in self.card.models:
            self.card.models.remove(self)
        with nogil:
            if self.info != NULL:
                self.card.api.axclrtEngineDestroyIOInfo(self.info)
                self.info = NULL
            code = self.card.api.axclrtEngineUnload(model)
        self.card.check("axclrtEngineUnload", code)


@cython.no_gc_clear
cdef class Binding:
    """An IO object of one model for one shape group: which buffer each input and output uses.

    Setting one is a local write. The binding keeps its buffers alive. Every input and output must be bound before the
    model runs; the card reads stale data otherwise.
    """

    def __init__(self, model: LoadedModel, group: int):
        cdef axclError code
        if model.model == 0:
            raise ValueError(f"{model.path} is unloaded")
        model.card.require_open()
        self.model = model
        self.group = group
        self.held = {}
        with nogil:
            code = model.card.api.axclrtEngineCreateIO(model.info, &self.io)
        model.card.check("axclrtEngineCreateIO", code)
        model.bindings.add(self)

    def set_input(self, index: int, buffer: DeviceBuffer) -> None:
        """Binds the start of `buffer`, with exactly the size that the group asks for. ValueError: it is too small."""
        self._bind(index, buffer, 0, True)

    def set_output(self, index: int, buffer: DeviceBuffer, offset: int = 0) -> None:
        """As `set_input`, from byte `offset` of the buffer on, as K and V rows go into a cache."""
        self._bind(index, buffer, offset, False)

    def execute(self) -> None:
        """Runs the group on what is bound, and waits. For experiments: passes go through the program."""
        cdef axclError code
        cdef LoadedModel model = self.model
        self._require_open()
        with nogil:
            code = model.card.api.axclrtEngineExecute(model.model, model.context, self.group, self.io)
        model.card.check("axclrtEngineExecute", code)

    def submit(self) -> None:
        """Queues the same in the card's stream. RuntimeUnavailable where the runtime has no such function."""
        cdef axclError code
        cdef LoadedModel model = self.model
        cdef Card card = model.card
        self._require_open()
        if not card.has_async:
            raise RuntimeUnavailable(f"{card.library} has no axclrtEngineExecuteAsync")
        with nogil:
            code = card.api.axclrtEngineExecuteAsync(model.model, model.context, self.group, self.io, card.stream)
        card.check("axclrtEngineExecuteAsync", code)

    def _bind(self, uint32_t index, DeviceBuffer buffer, size_t offset, bint is_input):
        cdef axclError code
        self._require_open()
        tensor = (self.model.inputs if is_input else self.model.outputs)[index]
        cdef uint64_t size = tensor.sizes[self.group]
        if buffer.handle == NULL or offset > buffer.nbytes or size > buffer.nbytes - offset:
            raise ValueError(
                f"{tensor.name} of group {self.group} needs {size} bytes at {offset}; the buffer has {buffer.nbytes}")
        cdef char *place = <char *>buffer.handle + offset
        with nogil:
            if is_input:
                code = self.model.card.api.axclrtEngineSetInputBufferByIndex(self.io, index, place, size)
            else:
                code = self.model.card.api.axclrtEngineSetOutputBufferByIndex(self.io, index, place, size)
        self.model.card.check(f"axclrtEngineSet{'Input' if is_input else 'Output'}BufferByIndex", code)
        self.held[is_input, index] = buffer

    def _require_open(self):
        if self.io == NULL:
            raise ValueError("this binding is closed, or its model is unloaded")

    def close(self) -> None:
        """Destroys the IO object. Closing twice is harmless."""
        cdef axclError code
        cdef axclrtEngineIO io = self.io
        if io == NULL:
            return
        self.io = NULL
        with nogil:
            code = self.model.card.api.axclrtEngineDestroyIO(io)
        self.model.card.check("axclrtEngineDestroyIO", code)
        self.held.clear()

    def __dealloc__(self):
        if self.io != NULL and not self.model.card.closed:
            self.model.card.api.axclrtEngineDestroyIO(self.io)  # of the host alone: no context, no wait
