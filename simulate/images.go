package simulate

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Bounds and costs of image requests.
const (
	imageOutputTokens = 272 // per picture, as usage reports them
	maxImages         = 10
	maxPartialImages  = 3
)

// pixel is a PNG of one pixel, base64-encoded.
var pixel = sync.OnceValue(func() string {
	img := image.NewGray(image.Rect(0, 0, 1, 1))
	img.SetGray(0, 0, color.Gray{Y: 128})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic("simulate: encode the built-in picture: " + err.Error())
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
})

type imageRequest struct {
	Model         string
	Prompt        string
	N             *int
	Stream        bool
	PartialImages int `json:"partial_images"`
	pictures      int // in the request
}

// generateImages answers POST /images/generations.
func (c *call) generateImages() {
	var req imageRequest
	if c.decode(&req) {
		c.images(&req, "image_generation")
	}
}

// editImages answers POST /images/edits, which takes a form or JSON.
func (c *call) editImages() {
	var req imageRequest
	if !isForm(c.r) {
		if c.decode(&req) {
			c.images(&req, "image_edit")
		}
		return
	}
	f, ok := c.readForm(nil)
	if !ok {
		return
	}
	if f.files == 0 {
		c.fail(invalid("image", "An edit needs an image file."))
		return
	}
	req = imageRequest{Model: f.fields["model"], Prompt: f.fields["prompt"], Stream: f.fields["stream"] == "true", pictures: f.files}
	for name, at := range map[string]func(int){
		"n":              func(n int) { req.N = &n },
		"partial_images": func(n int) { req.PartialImages = n },
	} {
		if value, given := f.fields[name]; given {
			n, err := strconv.Atoi(value)
			if err != nil {
				c.fail(invalid(name, "Invalid %q: %q is not a whole number.", name, clip(value)))
				return
			}
			at(n)
		}
	}
	c.images(&req, "image_edit")
}

// images answers an image request; kind begins the names of its events.
func (c *call) images(req *imageRequest, kind string) {
	c.stream = req.Stream
	n, err := choices(req.N)
	switch {
	case err != nil:
	case req.Prompt == "":
		err = invalid("prompt", "A picture needs a prompt.")
	case n > maxImages:
		err = invalid("n", "Invalid \"n\": %d is above the maximum of %d.", n, maxImages)
	case req.PartialImages < 0 || req.PartialImages > maxPartialImages:
		err = invalid("partial_images", "Invalid \"partial_images\": %d is not from 0 to %d.", req.PartialImages, maxPartialImages)
	}
	if err != nil {
		c.fail(err)
		return
	}
	if req.Model == "" {
		req.Model = c.p.models[0]
	}
	output := n * imageOutputTokens
	if !c.admit(req.Model, countTokens(len(req.Prompt))+req.pictures*imageTokens, int64(output)) {
		return
	}
	if req.Stream {
		s := c.newEventStream(chatError)
		s.close(c.imageEvents(s, req, n, kind))
		return
	}
	if !c.wait(c.ttft()) {
		return
	}
	c.produced(output)
	data := make([]any, n)
	for i := range data {
		data[i] = map[string]string{"b64_json": pixel()}
	}
	body := c.imageFields(req, output)
	body["created"], body["data"] = time.Now().Unix(), data
	c.json(http.StatusOK, mustJSON(body))
}

func (c *call) imageFields(req *imageRequest, output int) map[string]any {
	fields := map[string]any{"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
	if !c.faults.NoUsage {
		pictures := req.pictures * imageTokens
		fields["usage"] = map[string]any{
			"input_tokens": c.input, "output_tokens": output, "total_tokens": c.input + output,
			"input_tokens_details": map[string]int{"text_tokens": c.input - pictures, "image_tokens": pictures},
		}
	}
	return fields
}

func (c *call) imageEvents(s *stream, req *imageRequest, n int, kind string) error {
	if err := s.first(0, 1); err != nil {
		return err
	}
	send := func(name string, fields map[string]any) error {
		fields["type"], fields["b64_json"], fields["created_at"] = kind+name, pixel(), time.Now().Unix()
		return s.event([]byte("event: " + kind + name + "\ndata: " + string(mustJSON(fields)) + "\n\n"))
	}
	for range n {
		for i := range req.PartialImages {
			fields := map[string]any{"partial_image_index": i, "background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
			if err := send(".partial_image", fields); err != nil {
				return err
			}
			if err := s.pace(imageOutputTokens / (req.PartialImages + 1)); err != nil {
				return err
			}
		}
		c.produced(imageOutputTokens)
		if err := send(".completed", c.imageFields(req, imageOutputTokens)); err != nil {
			return err
		}
	}
	return nil
}
