package derive

import (
	"cmp"
	"math"
	"slices"

	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// Polarities.
const (
	Positive = "positive"
	Negative = "negative"
	Neutral  = "neutral"
)

// Severities, rising.
const (
	SeverityLow    = events.SeverityLow
	SeverityMedium = events.SeverityMedium
)

// neutralBand is how far from 0 a rating still says neither yes nor no: 3 of 5
// stars, or the middle fifth of a score.
const neutralBand = 0.2

// How sure the polarity is, by what says it. They order the kinds; nobody has
// measured them yet.
const (
	confidenceConfirmed  = 0.99 // a bad rating, with what was wrong
	confidenceCorrection = 0.9
	confidenceCategory   = 0.9
	confidenceEdit       = 0.85
	confidencePreference = 0.8
	confidenceMixed      = 0.7 // a rating, and something that speaks against it
	confidenceNeutral    = 0.6
	confidenceComment    = 0.5 // nobody has read it
)

// rating is the rating of an event, from -1 to 1. The event has one, and where
// it has several, the thumb counts, then the stars.
func rating(f *eventv1.Feedback) float64 {
	switch {
	case f.Thumb == "up":
		return 1
	case f.Thumb == "down":
		return -1
	case f.Stars != nil:
		return (float64(f.GetStars()) - 3) / 2
	default:
		return 2*(f.GetScore()-f.GetMin())/(f.GetMax()-f.GetMin()) - 1
	}
}

// rated is the rating of an event on its own scale.
func rated(f *eventv1.Feedback) *signalv1.Rated {
	switch {
	case f.Thumb != "":
		return &signalv1.Rated{Scale: "thumb", Value: rating(f), Min: -1, Max: 1}
	case f.Stars != nil:
		return &signalv1.Rated{Scale: "stars", Value: float64(f.GetStars()), Min: 1, Max: 5}
	default:
		return &signalv1.Rated{Scale: "score", Value: f.GetScore(), Min: f.GetMin(), Max: f.GetMax()}
	}
}

// polarity is that of the rating; without one, whoever says what is wrong is
// not content. It is empty where nothing was said.
func (o *opinion) polarity() string {
	switch {
	case o.rating != nil:
		r := rating(o.rating.GetFeedback())
		switch {
		case r > neutralBand:
			return Positive
		case r < -neutralBand:
			return Negative
		}
		return Neutral
	case o.faults() || o.comment != nil:
		return Negative
	case o.edits != nil:
		return Neutral // highlights alone
	}
	return ""
}

// faults says whether the opinion names something wrong.
func (o *opinion) faults() bool {
	return o.categories != nil || o.correction != nil || o.changes()
}

// changes says whether there are edits other than highlights.
func (o *opinion) changes() bool {
	for _, e := range o.edits.GetFeedback().GetEdits() {
		if e.Kind != "highlight" {
			return true
		}
	}
	return false
}

func (o *opinion) confidence() float64 {
	polarity := o.polarity()
	switch {
	case o.rating == nil && o.correction != nil:
		return confidenceCorrection
	case o.rating == nil && o.categories != nil:
		return confidenceCategory
	case o.rating == nil && o.changes():
		return confidenceEdit
	case o.rating == nil:
		return confidenceComment
	case polarity == Neutral:
		return confidenceNeutral
	case o.faults() && polarity == Negative:
		return confidenceConfirmed
	case o.faults():
		return confidenceMixed
	}
	// 0.95 for a thumb, less for a lesser rating.
	return math.Round((0.8+0.15*math.Abs(rating(o.rating.GetFeedback())))*1000) / 1000
}

// severity of a signal: the worst of its categories; without one, medium where
// the rating could not be lower or an answer was corrected, else low. What is
// not negative is low.
func (r *Rules) severity(s *signalv1.Signal) string {
	if s.Polarity != Negative {
		return SeverityLow
	}
	if len(s.Categories) == 0 {
		if s.Correction != "" || s.Rating != nil && s.GetRating() <= -1 {
			return SeverityMedium
		}
		return SeverityLow
	}
	return slices.MaxFunc(mapped(s.Categories, r.taxonomy.Severity), func(a, b string) int {
		return cmp.Compare(events.SeverityRank(a), events.SeverityRank(b))
	})
}

func mapped(in []string, f func(string) string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = f(s)
	}
	return out
}
