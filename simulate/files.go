package simulate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"sync"
)

// A file is an uploaded file. content is nil if the file was too long to keep.
type file struct {
	ID       string `json:"id"`
	Object   string `json:"object"`
	Bytes    int64  `json:"bytes"`
	Created  int64  `json:"created_at"`
	Filename string `json:"filename"`
	Purpose  string `json:"purpose"`
	Status   string `json:"status"`
	SHA256   string `json:"sha256"` // not in OpenAI's answer: shows that an upload arrived whole
	content  []byte
}

// maxFilename is how much of a file's name is kept, in bytes.
const maxFilename = 255

// A fileStore keeps what is known of recent uploads, oldest first. It is safe
// for concurrent use.
type fileStore struct {
	mu    sync.Mutex
	keep  int64 // bytes of content per file
	files []file
	size  int
}

func (s *fileStore) add(f file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
	s.size += len(f.content)
	for len(s.files) > 1 && (len(s.files) > maxStored || s.size > maxStoredBytes) {
		s.drop(0)
	}
}

func (s *fileStore) drop(i int) {
	s.size -= len(s.files[i].content)
	s.files = slices.Delete(s.files, i, i+1)
}

func (s *fileStore) index(id string) int {
	return slices.IndexFunc(s.files, func(f file) bool { return f.ID == id })
}

func (s *fileStore) get(id string) (file, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(id); i >= 0 {
		return s.files[i], true
	}
	return file{}, false
}

func (s *fileStore) remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.index(id)
	if i >= 0 {
		s.drop(i)
	}
	return i >= 0
}

// list returns the files of a purpose, or all, newest first.
func (s *fileStore) list(purpose string) []file {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []file{}
	for _, f := range slices.Backward(s.files) {
		if purpose == "" || f.Purpose == purpose {
			list = append(list, f)
		}
	}
	return list
}

func (s *fileStore) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files, s.size = nil, 0
}

// uploadFile answers POST /files. It counts and hashes the file as it comes.
func (c *call) uploadFile() {
	f := file{ID: "file-" + c.id, Object: "file", Created: c.began.Unix(), Status: "processed"}
	seen := false
	fields, ok := c.readForm(func(field, name string, r io.Reader) (err error) {
		if field != "file" || seen {
			return nil
		}
		seen = true
		f.Filename = name
		f.content, f.Bytes, f.SHA256, err = digest(r, c.p.files.keep)
		return err
	})
	if !ok {
		return
	}
	f.Purpose = fields.fields["purpose"]
	switch {
	case !seen:
		c.fail(invalid("file", "An upload needs a file."))
	case f.Purpose == "":
		c.fail(invalid("purpose", "An upload needs a purpose."))
	default:
		f.Filename, f.Purpose = f.Filename[:min(len(f.Filename), maxFilename)], clip(f.Purpose)
		c.p.files.add(f)
		c.json(http.StatusOK, mustJSON(f))
	}
}

// digest reads r to its end and returns its content if that is at most keep
// bytes, its length and its SHA-256.
func digest(r io.Reader, keep int64) (content []byte, size int64, sum string, err error) {
	hash := sha256.New()
	hashed := io.TeeReader(r, hash)
	var head bytes.Buffer
	if _, err = head.ReadFrom(io.LimitReader(hashed, keep+1)); err != nil {
		return nil, 0, "", err
	}
	rest, err := io.Copy(io.Discard, hashed)
	if err != nil {
		return nil, 0, "", err
	}
	size = int64(head.Len()) + rest
	if size <= keep {
		content = append([]byte{}, head.Bytes()...)
	}
	return content, size, hex.EncodeToString(hash.Sum(nil)), nil
}

// listFiles answers GET /files, with all files on one page.
func (c *call) listFiles() {
	list := c.p.files.list(c.r.URL.Query().Get("purpose"))
	page := map[string]any{"object": "list", "data": list, "has_more": false, "first_id": nil, "last_id": nil}
	if len(list) > 0 {
		page["first_id"], page["last_id"] = list[0].ID, list[len(list)-1].ID
	}
	c.json(http.StatusOK, mustJSON(page))
}

// getFile answers GET /files/{id}.
func (c *call) getFile() {
	if f, ok := c.p.files.get(c.pathID); ok {
		c.json(http.StatusOK, mustJSON(f))
		return
	}
	c.noFile()
}

// fileContent answers GET /files/{id}/content.
func (c *call) fileContent() {
	f, ok := c.p.files.get(c.pathID)
	switch {
	case !ok:
		c.noFile()
	case f.content == nil:
		c.fail(notFound("File %q was too long for its content to be kept.", clip(c.pathID)))
	default:
		c.bytes(http.StatusOK, "application/octet-stream", f.content)
	}
}

// deleteFile answers DELETE /files/{id}.
func (c *call) deleteFile() {
	if !c.p.files.remove(c.pathID) {
		c.noFile()
		return
	}
	c.json(http.StatusOK, mustJSON(map[string]any{"id": c.pathID, "object": "file", "deleted": true}))
}

func (c *call) noFile() { c.fail(notFound("There is no file %q.", clip(c.pathID))) }
