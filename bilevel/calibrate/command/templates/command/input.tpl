amplitude {{amplitude}}
rate {{rate}}
