package shop

import (
	"context"
	"strings"
)

// A topic is one thing that customers ask about, and what the assistant makes
// of it.
type topic struct {
	name      string
	questions []string
	answer    string   // what the assistant says
	source    string   // the passage that it looked up
	fault     *fault   // nil where the answer is good
	thanks    []string // what happy customers write
}

// A fault is what is wrong with an answer, and how customers say so.
type fault struct {
	category string
	comments []string
	truth    string // what a customer who knows better writes; empty where nobody does
}

const systemContext = "You are the assistant of Larkfield, a shop for shoes and outdoor clothes. Be brief and kind. Answer only about the shop."

// topics are the script: six faults among good answers.
func topics() []topic {
	return []topic{
		{
			name: "returning worn shoes",
			questions: []string{
				"Can I return worn shoes?", "Can I send back shoes I have already worn?", "Do you take back shoes that were worn outside?",
				"Is it possible to return shoes after wearing them?", "I wore the shoes for a week, can I still return them?",
				"Are worn shoes accepted for return?", "How long do I have to return worn shoes?", "Will you refund shoes I have used?",
			},
			answer: "Yes, you can return worn shoes within 60 days.",
			source: "faq/returns-2025: Shoes may be returned within 60 days, worn or not.",
			fault: &fault{"factually_incorrect", []string{
				"That is the old policy, it changed in May.", "The shop refused to take them back.", "Wrong, the website says 30 days and unworn.",
				"I was told the opposite on the phone.",
			}, "Only unworn shoes, within 30 days."},
		},
		{
			name: "shipping to Norway",
			questions: []string{
				"Do you ship to Norway?", "How much is shipping to Norway?", "What does delivery to Norway cost?", "Can I order to Oslo, Norway?",
				"Is there customs duty when you ship to Norway?", "How long does shipping to Norway take?",
			},
			answer: "Yes, we ship to Norway.",
			source: "faq/shipping: We ship to the EU and Norway.",
			fault: &fault{"incomplete", []string{
				"And what about customs?", "It left out the cost.", "You did not say how long it takes.", "Half an answer.",
			}, "We ship to Norway for 12 euros in 5 to 8 days; customs duty is paid on delivery."},
		},
		{
			name: "late parcels",
			questions: []string{
				"Where is my parcel?", "My order has not arrived, where is it?", "My parcel is a week late.", "Why is my delivery so late?",
				"The package still is not here, what is going on?", "When will my late order arrive?",
			},
			answer: "As you could have read in the confirmation, delivery takes up to ten days. Please check before you ask.",
			fault:  &fault{"wrong_tone", []string{"Rude!", "Why so unfriendly?", "I only asked.", "Is that how you talk to customers?"}, ""},
		},
		{
			name: "waterproofing with a heater",
			questions: []string{
				"How do I dry wet hiking boots quickly?", "What is the fastest way to dry my boots?", "Can I dry my leather boots on a heater?",
				"My boots got soaked, how do I dry them fast?", "How should wet boots be dried?",
			},
			answer: "Put them on an electric heater over night, soaked in waterproofing spray.",
			fault:  &fault{"unsafe", []string{"This is a fire hazard!", "Dangerous advice.", "The spray can says: keep away from heat."}, ""},
		},
		{
			name: "discount codes",
			questions: []string{
				"My discount code does not work.", "The coupon is not accepted at checkout.", "Where do I enter the discount code?",
				"I cannot find the field for the voucher.", "The promo code button does nothing.",
			},
			answer: "Enter the code in the field below the basket and press Apply.",
			fault: &fault{"interface_problem", []string{
				"There is no such field on my phone.", "The Apply button does nothing.", "The field is hidden behind the chat window.",
			}, ""},
		},
		{
			name: "care of wool",
			questions: []string{
				"How do I wash a wool sweater?", "Can I put merino wool in the washing machine?", "What temperature is right for wool?",
				"How should I care for wool clothes?", "Will my wool jumper shrink in the wash?",
			},
			answer: "Wool is a natural fibre that people have worn for thousands of years. Its history begins in Mesopotamia, where the first sheep were kept for it. " +
				"Today it is valued for warmth. There are many kinds, among them merino, cashmere and lambswool. As to washing, use a cool wool programme.",
			fault: &fault{"too_long", []string{"I did not ask for a history lesson.", "Too long.", "The answer is in the last five words."}, ""},
		},
		{
			name:      "opening hours",
			questions: []string{"When are you open?", "What are your opening hours?", "Is the shop open on Sunday?", "Are you open on Saturdays?"},
			answer:    "We are open Monday to Saturday, 10 to 18.", thanks: []string{"Thanks!", "Good to know."},
		},
		{
			name:      "sizes",
			questions: []string{"Which size should I order?", "Do your shoes run small?", "How do I find my shoe size?", "I am between two sizes, which one?"},
			answer:    "Measure your foot in the evening and add one centimetre. Between two sizes, take the larger one.", thanks: []string{"Fits perfectly.", "Great help."},
		},
		{
			name:      "payment",
			questions: []string{"Which payment methods do you take?", "Can I pay by invoice?", "Do you accept cards?", "Can I pay in instalments?"},
			answer:    "We take cards, bank transfer and invoice.", thanks: []string{"Perfect."},
		},
		{
			name:      "gift cards",
			questions: []string{"Do you sell gift cards?", "How long is a gift card valid?", "Where can I buy a voucher as a present?"},
			answer:    "Gift cards from 10 to 500 euros are in the shop and online; they are valid for three years.", thanks: []string{"Nice.", "Thank you."},
		},
		{
			name:      "repairs",
			questions: []string{"Do you repair zips?", "Can my jacket's zip be mended?", "Do you resole hiking boots?", "Is there a repair service?"},
			answer:    "Yes: bring it to the shop, repairs take about ten days. Zips cost 20 euros, new soles 60.", thanks: []string{"Great service."},
		},
	}
}

// Assistant answers customers. It asks Hone first: where a reviewer approved an
// answer to the same question, it gives that one.
type Assistant struct {
	Hone Hone
}

// Answer answers a question, and says whether it had help.
func (a Assistant) Answer(ctx context.Context, question string) (answer string, helped bool, err error) {
	known, err := a.Hone.Recall(ctx, question)
	if err != nil {
		return "", false, err
	}
	for _, k := range known {
		if k.Case.ApprovedAnswer != "" {
			return k.Case.ApprovedAnswer, true, nil
		}
	}
	return script(question), false, nil
}

// script is the nearest scripted answer, by shared words.
func script(question string) string {
	best, most := "I am sorry, I can only help with questions about the shop.", 1
	for _, t := range topics() {
		for _, q := range t.questions {
			if n := shared(q, question); n > most {
				best, most = t.answer, n
			}
		}
	}
	return best
}

func shared(a, b string) int {
	words := map[string]bool{}
	for _, w := range strings.FieldsFunc(strings.ToLower(a), notLetter) {
		words[w] = true
	}
	n := 0
	for _, w := range strings.FieldsFunc(strings.ToLower(b), notLetter) {
		if words[w] {
			n++
		}
	}
	return n
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && r != '\'' }
