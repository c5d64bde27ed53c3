// A layer opened by the library of stargz-snapshotter: its table verified against the digest of the annotation, every
// content and every chunk compared with its digest. usage: peer-open BLOB DIGEST
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	digest "github.com/opencontainers/go-digest"
)

func check(err error, what ...interface{}) {
	if err != nil {
		fmt.Fprintln(os.Stderr, append(what, err)...)
		os.Exit(1)
	}
}

func verify(r *estargz.Reader, v estargz.TOCEntryVerifier, e *estargz.TOCEntry) {
	f, err := r.OpenFile(e.Name)
	check(err, e.Name)
	data := make([]byte, e.Size)
	if _, err := f.ReadAt(data, 0); err != io.EOF {
		check(err, e.Name)
	}
	if fmt.Sprintf("sha256:%x", sha256.Sum256(data)) != e.Digest {
		check(io.ErrUnexpectedEOF, e.Name, "content")
	}
	for at := int64(0); at < e.Size; {
		c, ok := r.ChunkEntryForOffset(e.Name, at)
		if !ok {
			check(io.ErrUnexpectedEOF, e.Name, "no chunk at", at)
		}
		verifier, err := v.Verifier(c)
		check(err, e.Name)
		verifier.Write(data[c.ChunkOffset : c.ChunkOffset+c.ChunkSize])
		if !verifier.Verified() {
			check(io.ErrUnexpectedEOF, e.Name, "chunk at", at)
		}
		at = c.ChunkOffset + c.ChunkSize
	}
}

func main() {
	f, err := os.Open(os.Args[1])
	check(err)
	st, err := f.Stat()
	check(err)
	r, err := estargz.Open(io.NewSectionReader(f, 0, st.Size()), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	check(err, os.Args[1])
	v, err := r.VerifyTOC(digest.Digest(os.Args[2]))
	check(err, os.Args[1])
	n := 0
	var walk func(e *estargz.TOCEntry)
	walk = func(e *estargz.TOCEntry) {
		if e.Type == "reg" && e.Size > 0 {
			verify(r, v, e)
			n++
		}
		e.ForeachChild(func(name string, c *estargz.TOCEntry) bool {
			walk(c)
			return true
		})
	}
	root, _ := r.Lookup("")
	walk(root)
	fmt.Println(n, "files")
}
