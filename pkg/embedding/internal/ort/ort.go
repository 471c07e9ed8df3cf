// Package ort runs a model with ONNX Runtime's shared library, without cgo.
package ort

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// apiVersion is the C API asked for. Functions are only ever appended to its
// table, so any later library serves it. 17 is ONNX Runtime 1.17.
const apiVersion = 17

// Places of the used functions in the table OrtApi of onnxruntime_c_api.h.
const (
	apiGetErrorMessage       = 2
	apiCreateEnv             = 3
	apiCreateSession         = 7
	apiRun                   = 9
	apiCreateSessionOptions  = 10
	apiSetGraphOptimization  = 23
	apiSetIntraOpNumThreads  = 24
	apiCreateTensorWithData  = 49
	apiCreateCPUMemoryInfo   = 69
	apiReleaseEnv            = 92
	apiReleaseStatus         = 93
	apiReleaseMemoryInfo     = 94
	apiReleaseSession        = 95
	apiReleaseValue          = 96
	apiReleaseSessionOptions = 100
	loggingLevelError        = 3
	graphOptimizationAll     = 99
	arenaAllocator           = 1
	memTypeDefault           = 0
	elementFloat             = 1
	elementInt32             = 6
)

// handle is a pointer to an object of the library.
type handle uintptr

type api struct {
	getErrorMessage       func(status handle) string
	createEnv             func(level int32, id string, out *handle) handle
	createSession         func(env handle, path string, options handle, out *handle) handle
	run                   func(session, runOptions handle, inNames *unsafe.Pointer, in *handle, nIn uintptr, outNames *unsafe.Pointer, nOut uintptr, out *handle) handle
	createSessionOptions  func(out *handle) handle
	setGraphOptimization  func(options handle, level int32) handle
	setIntraOpNumThreads  func(options handle, n int32) handle
	createTensorWithData  func(info handle, data unsafe.Pointer, size uintptr, shape *int64, dims uintptr, element int32, out *handle) handle
	createCPUMemoryInfo   func(allocator, memType int32, out *handle) handle
	releaseEnv            func(handle)
	releaseStatus         func(handle)
	releaseMemoryInfo     func(handle)
	releaseSession        func(handle)
	releaseValue          func(handle)
	releaseSessionOptions func(handle)
}

// Session is a loaded model with the input "input_ids" (int32, texts × tokens)
// and the output "embedding" (float32, texts × dimensions). Run is safe for
// concurrent use.
type Session struct {
	api     *api
	env     handle
	session handle
	memory  handle
	in, out []byte // names, zero-terminated
	// closing is held for reading by each Run.
	closing sync.RWMutex
	closed  bool
}

// ErrClosed is the error of a Run after Close.
var ErrClosed = errors.New("model is closed")

// Open loads the library and the model.
func Open(library, model string) (*Session, error) {
	a, err := load(library)
	if err != nil {
		return nil, err
	}
	s := &Session{api: a, in: []byte("input_ids\x00"), out: []byte("embedding\x00")}
	if err := s.open(model); err != nil {
		s.release()
		return nil, fmt.Errorf("load model %s: %w", model, err)
	}
	return s, nil
}

func (s *Session) open(model string) error {
	a := s.api
	if err := a.check(a.createEnv(loggingLevelError, "hone", &s.env)); err != nil {
		return err
	}
	if err := a.check(a.createCPUMemoryInfo(arenaAllocator, memTypeDefault, &s.memory)); err != nil {
		return err
	}
	var options handle
	if err := a.check(a.createSessionOptions(&options)); err != nil {
		return err
	}
	defer a.releaseSessionOptions(options)
	for _, status := range []handle{
		a.setGraphOptimization(options, graphOptimizationAll),
		// A Run uses the thread that calls it: a pool's threads spin while they
		// wait and would burn the cores that the other services need.
		a.setIntraOpNumThreads(options, 1),
	} {
		if err := a.check(status); err != nil {
			return err
		}
	}
	return a.check(a.createSession(s.env, model, options, &s.session))
}

// Run computes the embeddings of rows texts, each of as many tokens as the
// others: len(ids) is rows × tokens. out has room for rows × dimensions.
func (s *Session) Run(ids []int32, rows int, out []float32) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return ErrClosed
	}
	// The library keeps the addresses from one call to the next.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	pin.Pin(&out[0])
	pin.Pin(&s.in[0])
	pin.Pin(&s.out[0])

	input, err := s.tensor(unsafe.Pointer(&ids[0]), len(ids)*4, [2]int64{int64(rows), int64(len(ids) / rows)}, elementInt32)
	if err != nil {
		return fmt.Errorf("create input: %w", err)
	}
	defer s.api.releaseValue(input)
	output, err := s.tensor(unsafe.Pointer(&out[0]), len(out)*4, [2]int64{int64(rows), int64(len(out) / rows)}, elementFloat)
	if err != nil {
		return fmt.Errorf("create output: %w", err)
	}
	defer s.api.releaseValue(output)
	inNames, outNames := unsafe.Pointer(&s.in[0]), unsafe.Pointer(&s.out[0])
	pin.Pin(&inNames)
	pin.Pin(&outNames)
	if err := s.api.check(s.api.run(s.session, 0, &inNames, &input, 1, &outNames, 1, &output)); err != nil {
		return fmt.Errorf("run model: %w", err)
	}
	return nil
}

func (s *Session) tensor(data unsafe.Pointer, size int, shape [2]int64, element int32) (handle, error) {
	var value handle
	err := s.api.check(s.api.createTensorWithData(s.memory, data, uintptr(size), &shape[0], 2, element, &value))
	return value, err
}

// Close waits for the Runs that are out and frees the model.
func (s *Session) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if !s.closed {
		s.closed = true
		s.release()
	}
	return nil
}

func (s *Session) release() {
	if s.session != 0 {
		s.api.releaseSession(s.session)
	}
	if s.memory != 0 {
		s.api.releaseMemoryInfo(s.memory)
	}
	if s.env != 0 {
		s.api.releaseEnv(s.env)
	}
}

// check turns a status into an error and frees it.
func (a *api) check(status handle) error {
	if status == 0 {
		return nil
	}
	defer a.releaseStatus(status)
	return errors.New(a.getErrorMessage(status))
}

func load(library string) (*api, error) {
	lib, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: %w", library, err)
	}
	var getAPIBase func() unsafe.Pointer
	symbol, err := purego.Dlsym(lib, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: %w", library, err)
	}
	purego.RegisterFunc(&getAPIBase, symbol)
	// struct OrtApiBase { OrtApi *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); }
	base := (*[2]uintptr)(getAPIBase())
	var getAPI func(version uint32) unsafe.Pointer
	purego.RegisterFunc(&getAPI, base[0])
	table := (*[apiReleaseSessionOptions + 1]uintptr)(getAPI(apiVersion))
	if table == nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: it is older than 1.%d", library, apiVersion)
	}
	a := &api{}
	purego.RegisterFunc(&a.getErrorMessage, table[apiGetErrorMessage])
	purego.RegisterFunc(&a.createEnv, table[apiCreateEnv])
	purego.RegisterFunc(&a.createSession, table[apiCreateSession])
	purego.RegisterFunc(&a.run, table[apiRun])
	purego.RegisterFunc(&a.createSessionOptions, table[apiCreateSessionOptions])
	purego.RegisterFunc(&a.setGraphOptimization, table[apiSetGraphOptimization])
	purego.RegisterFunc(&a.setIntraOpNumThreads, table[apiSetIntraOpNumThreads])
	purego.RegisterFunc(&a.createTensorWithData, table[apiCreateTensorWithData])
	purego.RegisterFunc(&a.createCPUMemoryInfo, table[apiCreateCPUMemoryInfo])
	purego.RegisterFunc(&a.releaseEnv, table[apiReleaseEnv])
	purego.RegisterFunc(&a.releaseStatus, table[apiReleaseStatus])
	purego.RegisterFunc(&a.releaseMemoryInfo, table[apiReleaseMemoryInfo])
	purego.RegisterFunc(&a.releaseSession, table[apiReleaseSession])
	purego.RegisterFunc(&a.releaseValue, table[apiReleaseValue])
	purego.RegisterFunc(&a.releaseSessionOptions, table[apiReleaseSessionOptions])
	return a, nil
}
